/** Draws plans beside the page, so that a thousand steps do not stop it. */
import type { Box } from './box'
import { layout } from './layout'

self.onmessage = (message: MessageEvent<readonly Box[]>) => self.postMessage(layout(message.data))
