export async function main(board) {
  const server = board.net.createServer()
  await new Promise((resolve) => server.listen(1, resolve))
  server.getConnections((_error, count) => {
    board.console.log(`board program ${board.name}, ${count} connections`)
    board.exit()
  })
}
