import express from 'express'

const app = express()
app.use(express.json())
app.get('/hello/:name', (request, response) => response.json({ hello: request.params.name, ip: request.ip }))
app.post('/sum', (request, response) => response.send(String(request.body.reduce((a, b) => a + b, 0))))
app.listen(80, () => console.log('ready'))
