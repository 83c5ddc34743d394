/**
 * Messages in MessagePack, on the package `@msgpack/msgpack`, which has to be installed beside this one.
 *
 * @since 0.1.0
 */
export * as Msgpack from "./Msgpack.ts"
