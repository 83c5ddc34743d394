/**
 * Network streams for Effect: scoped connections, typed readers, back-pressured writers and supervised servers.
 *
 * @since 0.1.0
 */
export * as Codec from "./Codec.ts"
export * as Connection from "./Connection.ts"
export * as ConnectionPool from "./ConnectionPool.ts"
export * as Dialer from "./Dialer.ts"
export * as FrameError from "./FrameError.ts"
export * as Framed from "./Framed.ts"
export * as Framing from "./Framing.ts"
export * as MemoryTransport from "./MemoryTransport.ts"
export * as Network from "./Network.ts"
export * as Proxy from "./Proxy.ts"
export * as ProxyProtocol from "./ProxyProtocol.ts"
export * as Reconnect from "./Reconnect.ts"
export * as Relay from "./Relay.ts"
export * as Server from "./Server.ts"
export * as SocketTransport from "./SocketTransport.ts"
export * as StreamError from "./StreamError.ts"
export * as StreamReader from "./StreamReader.ts"
export * as StreamWriter from "./StreamWriter.ts"
export * as Tls from "./Tls.ts"
export * as TlsReloader from "./TlsReloader.ts"
export * as Transport from "./Transport.ts"
export * as WebStreamTransport from "./WebStreamTransport.ts"
