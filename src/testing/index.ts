/**
 * What tests of network code need: a network in memory, and a pair of transports without any buffer.
 *
 * @since 0.1.0
 */
export * as Conformance from "./Conformance.ts"
export * as Lockstep from "./Lockstep.ts"
export * as TestNetwork from "./TestNetwork.ts"
