//! The network: UDX, secret streams, DHT, swarm.
