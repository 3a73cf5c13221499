import Fastify from 'fastify'

const app = Fastify()
app.get('/where', async (request) => ({ ip: request.ip, host: request.hostname }))
await app.listen({ port: 80, host: '0.0.0.0' })
console.log('ready')
