// What the npm package hyperdht-address makes of a key with hints, and a key that it makes: both in hex.
const { decode, encode } = require('hyperdht-address')

const [given, key, nodes] = process.argv.slice(2)
const { key: read, nodes: hints } = decode(Buffer.from(given, 'hex'))
const made = encode(Buffer.from(key, 'hex'), JSON.parse(nodes))
console.log(JSON.stringify({ key: read.toString('hex'), nodes: hints, made: made.toString('hex') }))
