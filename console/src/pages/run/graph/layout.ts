import { graphlib, layout as arrange } from '@dagrejs/dagre'

import { type Box, BOX_WIDTH, type Drawing, type Place } from './box'

/**
 * Puts each step to the right of those before it. The exact way of ranking takes seconds for a thousand steps, so a large plan
 * is ranked by its longest paths, which is what its reader expects anyway.
 */
export function layout(boxes: readonly Box[]): Drawing {
  const graph = new graphlib.Graph()
  const ranker = boxes.length > 150 ? 'longest-path' : 'network-simplex'
  graph.setGraph({ rankdir: 'LR', nodesep: 18, ranksep: 40, ranker })
  graph.setDefaultEdgeLabel(() => ({}))
  const keys = new Set(boxes.map(box => box.key))
  for (const box of boxes) graph.setNode(box.key, { width: BOX_WIDTH, height: box.height })
  for (const box of boxes) {
    for (const before of box.after) if (keys.has(before)) graph.setEdge(before, box.key)
  }
  arrange(graph)
  const places: Record<string, Place> = {}
  let width = 0
  let height = 0
  for (const box of boxes) {
    const { x = 0, y = 0 } = graph.node(box.key) as { x?: number; y?: number }
    places[box.key] = { x: x - BOX_WIDTH / 2, y: y - box.height / 2 }
    width = Math.max(width, x + BOX_WIDTH / 2)
    height = Math.max(height, y + box.height / 2)
  }
  return { places, width, height }
}
