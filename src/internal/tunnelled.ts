import type { Target } from "../Network.ts"

/** How a connection hears that the proxy at its other end has connected it to somebody else. */
export const tunnelled = Symbol("effect-wire/tunnelled")

export interface Tunnelled {
  readonly [tunnelled]: (target: Target) => void
}

export const canBeTunnelled = (u: object): u is Tunnelled => tunnelled in u
