/** The body of a command with what is said, as the server fills in the rest: the generated types name the defaults as fields that are always there. */
export function sent<T extends object>(body: Partial<NoInfer<T>>): T {
  return body as T
}

/** The reason of a command, where one was given. */
export function reasoned(reason: string): { reason?: string } {
  return reason.trim() === '' ? {} : { reason: reason.trim() }
}
