import nodemailer from 'nodemailer'

const transport = nodemailer.createTransport({ host: 'mailhost', port: 25, tls: { rejectUnauthorized: false } })
const { response } = await transport.sendMail({
  from: 'a@example.test',
  to: 'b@example.test',
  subject: 'through two cards',
  text: 'hello '.repeat(20_000),
})
console.log(response)
