/**
 * Connections and servers on Node: TCP and Unix sockets.
 *
 * @since 0.1.0
 */

/**
 * @since 0.1.0
 */
export * as NodeConnection from "./NodeConnection.ts"

/**
 * @since 0.1.0
 */
export * as NodeNetwork from "./NodeNetwork.ts"

/**
 * @since 0.1.0
 */
export * as NodeTransport from "./NodeTransport.ts"
