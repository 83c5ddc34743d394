import { NetAddress } from "effect/net"
import * as os from "node:os"

/** The scope IDs of the host's network interfaces, by interface name. */
export const interfaceScopeIds = (): ReadonlyMap<string, number> =>
  NetAddress.scopeIdsFromInterfaces(Object.entries(os.networkInterfaces()))
