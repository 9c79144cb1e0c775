/** The script of the SharedWorker. */
import { BestFeed, Tab } from './connection'
import type { ToConnection, ToTab } from './shared'

const tabs = new Set<(message: ToTab) => void>()
const feed = new BestFeed(() => {
  for (const say of tabs) say({ is: 'signed-out' })
})

function serve(port: MessagePort): void {
  const say = (message: ToTab) => port.postMessage(message)
  const tab = new Tab(feed, say)
  tabs.add(say)
  port.onmessage = (message: MessageEvent<ToConnection>) => {
    tab.take(message.data)
    // A tab that is closed says nothing any more. Its lock does: it is free then.
    if (message.data.do === 'hello')
      void navigator.locks.request(message.data.lock, () => {
        tabs.delete(say)
        tab.close()
        port.close()
      })
  }
}

addEventListener('connect', event => {
  for (const port of (event as MessageEvent).ports) serve(port)
})
