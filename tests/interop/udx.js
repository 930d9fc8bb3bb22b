// The other end of the UDX loopback tests: udx.js <send|receive> <port of the other side> <bytes>
// Prints its own port, then a line with what it saw.
const UDX = require('udx-native')

const [mode, port, bytes] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])]
const PERIOD = 1 << 24
const pattern = Buffer.alloc(PERIOD + 65536)
for (let i = 0; i < pattern.length; i++) pattern[i] = i ^ (i >> 8) ^ (i >> 16)

const udx = new UDX()
const socket = udx.createSocket()
socket.bind(0, '127.0.0.1')
const stream = udx.createStream(2)
stream.connect(socket, 1, port, '127.0.0.1')

let seen = 0
let intact = true
stream.on('data', (data) => {
  const at = seen % PERIOD
  intact = intact && data.equals(pattern.subarray(at, at + data.byteLength))
  seen += data.byteLength
})
stream.on('end', () => mode === 'receive' && stream.end())
stream.on('error', (err) => console.log('error ' + err.code))
stream.on('close', async () => {
  console.log(`seen ${seen} ${intact} mtu ${stream.mtu} rtos ${stream.rtoCount} retransmits ${stream.retransmits}`)
  await socket.close()
})
console.log('port ' + socket.address().port)

if (mode === 'send') {
  let sent = 0
  const write = () => {
    while (sent < bytes) {
      const at = sent % PERIOD
      const chunk = pattern.subarray(at, at + Math.min(65536, bytes - sent))
      sent += chunk.byteLength
      if (!stream.write(chunk)) return stream.once('drain', write)
    }
    stream.end()
  }
  write()
}
