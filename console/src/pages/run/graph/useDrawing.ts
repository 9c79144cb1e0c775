import { startTransition, useEffect, useState } from 'react'

import type { Box, Drawing } from './box'

/** Where the boxes stand, as soon as a worker has said so. Null: not yet. Asked anew only when the plan is another one. */
export function useDrawing(boxes: readonly Box[]): { drawing: Drawing | null; failed: boolean } {
  const key = JSON.stringify(boxes)
  const [drawn, setDrawn] = useState<{ key: string; drawing: Drawing | null }>({ key: '', drawing: null })
  useEffect(() => {
    const worker = new Worker(new URL('./layout.worker.ts', import.meta.url), { type: 'module' })
    worker.onmessage = (message: MessageEvent<Drawing>) =>
      startTransition(() => setDrawn({ key, drawing: message.data }))
    worker.onerror = () => setDrawn({ key, drawing: null })
    worker.postMessage(JSON.parse(key))
    return () => worker.terminate()
  }, [key])
  return { drawing: drawn.drawing, failed: drawn.key === key && drawn.drawing === null }
}
