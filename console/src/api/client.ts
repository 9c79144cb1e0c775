/**
 * The HTTP interface, typed by its OpenAPI document. Everything here throws `Problem`.
 *
 * A command answers with the position of its last event. Reads then ask for that position (`Tidelog-Position`), so that a page
 * shows what its user has just done.
 */
import createClient, { type Middleware } from 'openapi-fetch'

import { SERVER } from './place'
import { problemOf, unreachable } from './problem'
import type { paths } from './schema'

/** Milliseconds after which a request without an answer counts as lost. */
const PATIENCE_MS = 30_000

let written = 0
let onSignedOut: () => void = () => undefined

/** Called when an answer says that nobody is signed in (any more). */
export function whenSignedOut(act: () => void): void {
  onSignedOut = act
}

/** Tells that nobody is signed in any more. */
export function signedOut(): void {
  onSignedOut()
}

/** Reads from now on show at least what the log had at this position. */
export function mustShow(position: number): void {
  written = Math.max(written, position)
}

const conventions: Middleware = {
  onRequest({ request, params }) {
    const past = params.query !== undefined && 'as_of' in params.query
    if (request.method === 'GET' && written > 0 && !past && !request.headers.has('Tidelog-Position')) {
      request.headers.set('Tidelog-Position', String(written))
    }
    if (request.method === 'POST' && !request.headers.has('Idempotency-Key')) {
      request.headers.set('Idempotency-Key', crypto.randomUUID())
    }
    return request
  },
  async onResponse({ request, response }) {
    if (!response.ok) {
      if (response.status === 410) written = 0 // the log was restored: it is shorter than what this page has seen
      if (response.status === 401 && !request.url.endsWith('/v1/sessions')) signedOut()
      throw problemOf(response, await response.json().catch(() => null))
    }
    if (request.method !== 'GET') mustShow(Number(response.headers.get('Tidelog-Position') ?? 0))
  },
  onError({ error }) {
    throw unreachable(error)
  },
}

async function patiently(request: Request): Promise<Response> {
  const signal = AbortSignal.any([request.signal, AbortSignal.timeout(PATIENCE_MS)])
  return fetch(request, { signal, credentials: 'same-origin' })
}

/** Like `fetch`, by paths and types of the OpenAPI document: `await api.GET('/v1/runs/{run_id}', { params: … })`. */
export const api = createClient<paths>({ baseUrl: `${location.origin}${SERVER}`, fetch: patiently })
api.use(conventions)

/** The data of an answer. The middleware has thrown for errors, so there is one. */
export function dataOf<T>(answer: { data?: T }): T {
  return answer.data as T
}

/** The position that an answer shows: who listens from there misses nothing. Null: it shows none. */
export function positionOf(answer: { readonly response: Response }): string | null {
  return answer.response.headers.get('Tidelog-Position')
}

/** Headers of a command that has no reason in its body: the reason goes into the audit log. UTF-8, as `fetch` takes bytes. */
export function withReason(reason: string): Record<string, string> {
  const bytes = new TextEncoder().encode(reason.trim())
  return bytes.length === 0 ? {} : { 'Tidelog-Reason': String.fromCharCode(...bytes) }
}
