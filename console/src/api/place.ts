/** Where this server's parts are. A proxy may serve all of them under a prefix, so paths begin where this script came from. */

const here = new URL(import.meta.url).pathname
const at = here.lastIndexOf('/console/')

/** The path under which the server is: empty, or `/prefix`. */
export const SERVER = at > 0 ? here.slice(0, at) : ''

/** The path of the console without a slash at its end. */
export const CONSOLE = `${SERVER}/console`
