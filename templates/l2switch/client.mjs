/** Asks the server on the other network once a second. */
const [url] = process.argv.slice(2)

setInterval(async () => {
  try {
    const response = await fetch(url)
    console.log(`${url}: ${await response.text()}`)
  } catch (error) {
    console.log(`${url}: ${error.cause?.code ?? error.message}`)
  }
}, 1000)
