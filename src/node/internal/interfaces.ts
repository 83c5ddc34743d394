import * as NetAddress from "effect/net/NetAddress"
import * as os from "node:os"

/** The scope IDs of the host's network interfaces, by interface name. */
export const interfaceScopeIds = (): ReadonlyMap<string, number> =>
  NetAddress.scopeIdsFromInterfaces(Object.entries(os.networkInterfaces()))
