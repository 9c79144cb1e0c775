import type { components } from './schema'

export type ProblemBody = components['schemas']['Problem']

/** An answer that is not the wanted one: a problem document (RFC 9457) of the server, or no answer at all. */
export class Problem extends Error {
  override name = 'Problem'

  constructor(
    /** The status of the answer. 0: there was none. */
    readonly status: number,
    /** The stable code of the error, such as `not-found`; `unreachable` without an answer. */
    readonly code: string,
    title: string,
    readonly detail: string,
    /** Whether the same request may succeed later. */
    readonly retryable: boolean,
    readonly traceId: string | null = null,
    /** What is wrong, each with the JSON Pointer of its place. */
    readonly errors: readonly { pointer: string; detail: string }[] = [],
    readonly body: Readonly<Record<string, unknown>> = {},
  ) {
    super(title)
  }
}

/** The problem of an answer with an error status. */
export function problemOf(response: Response, body: unknown): Problem {
  const told = typeof body === 'object' && body !== null ? (body as Record<string, unknown>) : {}
  const text = (name: string, otherwise: string) => (typeof told[name] === 'string' ? told[name] : otherwise)
  return new Problem(
    response.status,
    text('code', `http-${response.status}`),
    text('title', response.statusText || `The server answered ${response.status}`),
    text('detail', ''),
    told['retryable'] === true || response.status === 503 || response.status === 504,
    text('trace_id', response.headers.get('Tidelog-Trace-Id') ?? '') || null,
    Array.isArray(told['errors']) ? (told['errors'] as { pointer: string; detail: string }[]) : [],
    told,
  )
}

/** The problem of a request without an answer. */
export function unreachable(error: unknown): Problem {
  const detail = error instanceof Error ? error.message : String(error)
  return new Problem(0, 'unreachable', 'The server cannot be reached', detail, true)
}

/** Any error as a problem, so that one box shows all of them. */
export function asProblem(error: unknown): Problem {
  if (error instanceof Problem) return error
  const detail = error instanceof Error ? error.message : String(error)
  return new Problem(0, 'defect', 'The console has a fault here', detail, false)
}
