'use strict'
// One Hypercore of the reference at the end of a pipe. Both directions of stdio carry records:
// u32le length, kind (0 a Protomux frame, 1 a JSON command or answer), payload. There is no secret
// stream; the handshake hash is 00..3f on both sides.
const fs = require('fs')
const os = require('os')
const path = require('path')
const { Duplex } = require('streamx')
const Protomux = require('protomux')
const Hypercore = require('hypercore')

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'hdrive-replication-'))
let core = null
let stream = null

function record(kind, payload) {
  const head = Buffer.alloc(5)
  head.writeUInt32LE(payload.length)
  head[4] = kind
  process.stdout.write(Buffer.concat([head, payload]))
}

function makeStream(isInitiator) {
  const s = new Duplex({
    write(data, cb) {
      record(0, Buffer.from(data))
      cb(null)
    },
    final(cb) {
      cb(null)
    }
  })
  s.isInitiator = isInitiator
  s.handshakeHash = Buffer.from(Array.from({ length: 64 }, (_, i) => i))
  s.opened = Promise.resolve(true)
  s.userData = null
  s.publicKey = Buffer.alloc(32, 1)
  s.remotePublicKey = Buffer.alloc(32, 2)
  s.rawStream = {}
  s.noiseStream = s
  s.on('error', (err) => record(1, Buffer.from(JSON.stringify({ error: String(err.stack) }))))
  s.on('close', () => record(1, Buffer.from(JSON.stringify({ closed: true }))))
  return s
}

const hex = (b) => (b ? b.toString('hex') : null)

const ops = {
  async open({ key, seed, encryptionKey }) {
    const crypto = require('hypercore-crypto')
    const keyPair = seed ? crypto.keyPair(Buffer.from(seed, 'hex')) : undefined
    const opts = { keyPair }
    if (encryptionKey) opts.encryption = { key: Buffer.from(encryptionKey, 'hex') }
    core = new Hypercore(dir, key ? Buffer.from(key, 'hex') : undefined, opts)
    await core.ready()
    return { key: hex(core.key) }
  },
  async connect({ initiator }) {
    stream = makeStream(initiator)
    core.replicate(new Protomux(stream))
  },
  async append({ blocks }) {
    await core.append(blocks.map((b) => Buffer.from(b, 'hex')))
  },
  async truncate({ length, fork }) {
    await core.truncate(length, fork ? { fork } : undefined)
  },
  async clear({ start, end }) {
    await core.clear(start, end)
  },
  async get({ index }) {
    return { value: hex(await core.get(index, { timeout: 10000 })) }
  },
  async download({ start, end, linear }) {
    await core.download({ start, end, linear }).done()
    const local = []
    for (let i = start; i < end; i++) local.push(hex(await core.get(i, { wait: false })))
    return { local }
  },
  async seek({ bytes }) {
    return { found: await core.seek(bytes, { timeout: 10000 }) }
  },
  async update() {
    await core.update({ wait: true })
  },
  async state() {
    const { length, fork, contiguousLength, byteLength } = core
    const remotes = core.peers.map((p) => ({ length: p.remoteLength, contiguous: p.remoteContiguousLength, paused: p.paused }))
    return { length, fork, contiguousLength, byteLength, remotes }
  },
  async quit() {
    await core.close()
    fs.rmSync(dir, { recursive: true, force: true })
    setTimeout(() => process.exit(0), 10)
  }
}

let pending = Buffer.alloc(0)
process.stdin.on('data', (data) => {
  pending = Buffer.concat([pending, data])
  while (pending.length >= 5) {
    const end = 5 + pending.readUInt32LE()
    if (pending.length < end) return
    const kind = pending[4]
    const payload = pending.subarray(5, end)
    pending = pending.subarray(end)
    if (kind === 0) {
      if (stream) stream.push(Buffer.from(payload))
    } else run(JSON.parse(payload))
  }
})
process.stdin.on('end', () => {
  fs.rmSync(dir, { recursive: true, force: true })
  process.exit(0)
})

async function run(command) {
  let answer
  try {
    answer = (await ops[command.op](command)) || {}
  } catch (err) {
    answer = { error: String(err.stack) }
  }
  record(1, Buffer.from(JSON.stringify({ id: command.id, ...answer })))
}
