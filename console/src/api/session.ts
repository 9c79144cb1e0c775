/** Who is signed in: a session in a cookie that scripts cannot read (docs/reference/access.md). */
import { SERVER } from './place'
import { Problem, problemOf, unreachable } from './problem'

/** The signed-in session, as `GET /v1/sessions/self` tells it. */
export interface Session {
  readonly key_id: string
  readonly tenant_id: string
  readonly role: string
  readonly projects: readonly string[] | null
  readonly expires_at: string
}

const PATH = `${SERVER}/v1/sessions`

async function ask(method: string, path: string, body?: unknown): Promise<Response> {
  const sent: RequestInit = { method, credentials: 'same-origin', signal: AbortSignal.timeout(30_000) }
  if (body !== undefined) {
    sent.body = JSON.stringify(body)
    sent.headers = { 'Content-Type': 'application/json' }
  }
  const response = await fetch(path, sent).catch((error: unknown) => {
    throw unreachable(error)
  })
  if (!response.ok) throw problemOf(response, await response.json().catch(() => null))
  return response
}

/** The session of this browser. Null: nobody is signed in. Throws `Problem`. */
export async function currentSession(): Promise<Session | null> {
  try {
    return (await (await ask('GET', `${PATH}/self`)).json()) as Session
  } catch (error) {
    if (error instanceof Problem && error.status === 401) return null
    throw error
  }
}

/** Tells the browser's other tabs that another one is signed in now, or nobody. */
const changes = new BroadcastChannel('tidelog-session')

export function onOthersChange(act: () => void): () => void {
  changes.addEventListener('message', act)
  return () => changes.removeEventListener('message', act)
}

/** Signs in by an API key, or by a link that signs in once. Throws `Problem`. */
export async function signIn(by: { key: string } | { link: string }): Promise<Session> {
  await ask('POST', PATH, by)
  const session = await currentSession()
  if (session === null) throw new Problem(401, 'no-cookie', 'The browser did not keep the cookie', '', false)
  changes.postMessage('in')
  return session
}

export async function signOut(): Promise<void> {
  await ask('DELETE', `${PATH}/self`)
  changes.postMessage('out')
}

/** Takes the link of `tidelog up` out of the address, so that it is neither kept in the history nor sent again. */
export function takeLink(): string | null {
  const link = new URLSearchParams(location.hash.slice(1)).get('link')
  if (link !== null) history.replaceState(history.state, '', location.pathname + location.search)
  return link
}
