/**
 * For what changes without an event: whether a process or a worker is there. Such a page asks again every ten seconds while it is in
 * sight, and never otherwise (docs/decisions/0127). Everything else is told by events.
 */
export const watched = { refetchInterval: 10_000, refetchIntervalInBackground: false } as const

/** While something is being built: its progress is no event either. */
export const watchedClosely = { refetchInterval: 2_000, refetchIntervalInBackground: false } as const
