import '@xyflow/react/dist/base.css'
import './graph.css'

import { Controls, MarkerType, ReactFlow, ReactFlowProvider } from '@xyflow/react'
import { useMemo, useState } from 'react'

import type { Run } from '../../../api/types'
import { Loading, ProblemBox } from '../../../ui/States'
import { boxesOf, edgesOf, firstToSee, near, nodesOf } from './nodes'
import { ChooseContext, StepBox } from './StepBox'
import { useDrawing } from './useDrawing'

/** Room for the buttons at the right. */
const PADDING = { top: '20px', bottom: '20px', left: '24px', right: '64px' } as const
const TYPES = { step: StepBox }
// The console links to no other host; docs/decisions/0130 names React Flow, whose licence (MIT) allows this.
const NO_LINK = { hideAttribution: true }
const EDGES = { markerEnd: { type: MarkerType.ArrowClosed, width: 14, height: 14 } }

/** Steps up to which the whole plan is in sight at first, and every step is in the page, so that the keyboard reaches it. */
const WHOLE = 40
const ALL = 100

interface Props {
  readonly run: Run
  readonly chosen: string | null
  readonly onChoose: (key: string | null) => void
}

/**
 * Steps that are drawn at most. A drawing of a thousand boxes is read by nobody, and stops the page for a second: of a larger plan
 * we draw what is near the step that is looked at.
 */
const MOST = 100

/** The plan as a graph with live states. Only to look at: it can be moved and zoomed. */
export default function PlanGraph({ run: whole, chosen, onChoose }: Props) {
  const [center, setCenter] = useState(() => chosen ?? firstToSee(whole))
  const run = useMemo(() => near(whole, center, MOST), [whole, center])
  const left = whole.steps.length - run.steps.length
  const away = chosen !== null && left > 0 && !run.steps.some(step => step.key === chosen)
  if (away && whole.steps.some(step => step.key === chosen)) setCenter(chosen)
  const boxes = useMemo(() => boxesOf(run), [run])
  const { drawing, failed } = useDrawing(boxes)
  const nodes = useMemo(
    () => (drawing === null ? [] : nodesOf(run, boxes, drawing, chosen)),
    [run, boxes, drawing, chosen],
  )
  const edges = useMemo(() => edgesOf(run), [run])
  const choose = useMemo(() => (key: string) => onChoose(key === chosen ? null : key), [onChoose, chosen])
  if (failed) return <ProblemBox error={new Error('The plan could not be drawn. See it as a list.')} />
  if (drawing === null) return <Loading what="the graph" />
  const seen = nodes.length > WHOLE && center !== undefined ? { nodes: [{ id: center }], maxZoom: 0.9 } : { maxZoom: 1 }
  return (
    <>
      {left > 0 && (
        <p className="soft">
          {run.steps.length} of {whole.steps.length.toLocaleString('en')} steps are drawn, those near {center}. The list
          has all.
        </p>
      )}
      <div
        className="graph"
        data-testid="graph"
        style={{
          aspectRatio: `${Math.round(drawing.width + 100)} / ${Math.round(drawing.height + 60)}`,
          maxHeight: `min(${Math.round(drawing.height + 60)}px, 58vh)`,
        }}
      >
        <ReactFlowProvider key={center}>
          <ChooseContext value={choose}>
            <ReactFlow
              nodes={nodes}
              edges={edges}
              nodeTypes={TYPES}
              defaultEdgeOptions={EDGES}
              fitView
              fitViewOptions={{ padding: PADDING, minZoom: 0.25, ...seen }}
              minZoom={0.05}
              maxZoom={1.5}
              nodesDraggable={false}
              nodesConnectable={false}
              nodesFocusable={false}
              edgesFocusable={false}
              elementsSelectable={false}
              zoomOnScroll={false}
              preventScrolling={false}
              onlyRenderVisibleElements={nodes.length > ALL}
              proOptions={NO_LINK}
              aria-label="The plan as a graph"
            >
              <Controls showInteractive={false} position="bottom-right" />
            </ReactFlow>
          </ChooseContext>
        </ReactFlowProvider>
      </div>
    </>
  )
}
