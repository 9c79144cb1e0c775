/** How much waits for whoever is signed in. */
export function InboxCount() {
  return null
}
