/** How the messages of errors end that say what to do. */
export const remedies = {
  portInUse:
    "; another program listens there: choose another port, port 0 for any that is free, or set `reusePort` for both",
  pathInUse:
    "; a server listens there, or something is there that is no socket: choose another path, or remove it",
  localPortInUse: "; leave the port out of `localAddress`, or keep fewer connections open",
  notOurs: "; choose an address of this machine, or leave `host` out to listen on all of them",
  noDirectory: "; make the directory of the path first",
  noSocket: "; no server has made its socket there: start it, or correct the path",
  raise: (option: string): string => `; raise it with \`${option}\``
}
