import { WebSocketServer } from 'ws'

const server = new WebSocketServer({ port: 80 }, () => console.log('ready'))
server.on('connection', (socket) => socket.on('message', (data, binary) => socket.send(data, { binary })))
