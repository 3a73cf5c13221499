// Speaks first, and offers STARTTLS.
import { SMTPServer } from 'smtp-server'

const server = new SMTPServer({
  authOptional: true,
  onData(stream, session, done) {
    let text = ''
    stream.on('data', (chunk) => {
      text += chunk
    })
    stream.on('end', () => {
      const [, subject] = /^Subject: (.*)$/m.exec(text)
      console.log(`from ${session.envelope.mailFrom.address}: ${subject.trim()}, ${session.secure ? 'secure' : 'open'}`)
      done()
    })
  },
})
server.listen(25, () => console.log('ready'))
