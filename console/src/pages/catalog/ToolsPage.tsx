import './catalog.css'

import { Link, useLocation } from 'wouter'

import { Empty, Loading, ProblemBox } from '../../ui/States'
import { Status } from '../../ui/Status'
import { type Column, VirtualTable } from '../../ui/VirtualTable'
import { type Breaker, matches, type Tool, useBreakers, useCatalogEvents, useTools } from './data'
import { limitsOf } from './policy'
import { Online, Search, useSearch } from './Search'
import { ToolPage } from './ToolPage'

interface Listed {
  readonly tool: Tool
  readonly breaker: Breaker | undefined
}

const COLUMNS: readonly Column<Listed>[] = [
  {
    key: 'name',
    name: 'Tool',
    track: 'minmax(9rem, 1.2fr)',
    cell: ({ tool }) => (
      <>
        <Link className="mono" href={`/tools/${encodeURIComponent(tool.name)}`}>
          {tool.name}
        </Link>
        {tool.deprecated !== null && (
          <>
            {' '}
            <Status of="deprecated" />
          </>
        )}
      </>
    ),
  },
  { key: 'workers', name: 'Online', track: '7rem', cell: ({ tool }) => <Online workers={tool.workers} /> },
  {
    key: 'breaker',
    name: 'Breaker',
    track: '6.5rem',
    cell: ({ breaker }) =>
      breaker === undefined || breaker.state === 'closed' ? (
        <span className="soft">closed</span>
      ) : (
        <Status of={breaker.state} />
      ),
  },
  { key: 'kind', name: 'Kind', track: '4.5rem', wide: true, cell: ({ tool }) => tool.kind },
  {
    key: 'about',
    name: 'What it does',
    track: 'minmax(10rem, 2.5fr)',
    wide: true,
    cell: ({ tool }) => <span title={tool.description}>{tool.description}</span>,
  },
  {
    key: 'limits',
    name: 'Limits',
    track: 'minmax(6rem, 1fr)',
    wide: true,
    cell: ({ tool }) => <span className="soft">{limitsOf(tool.policy).join(' · ')}</span>,
  },
  { key: 'version', name: 'Version', track: '5rem', wide: true, cell: ({ tool }) => tool.version },
]

export default function ToolsPage({ name }: { readonly name: string | null }) {
  useCatalogEvents()
  return name === null ? <List /> : <ToolPage key={name} name={name} />
}

function List() {
  const tools = useTools()
  const breakers = useBreakers()
  const [search] = useSearch()
  const [, navigate] = useLocation()
  const byTool = new Map((breakers.data?.rows ?? []).map(breaker => [breaker.tool, breaker]))
  const rows = (tools.data?.rows ?? [])
    .filter(tool => matches(search, [tool.name, tool.description, tool.kind, ...tool.capabilities]))
    .map(tool => ({ tool, breaker: byTool.get(tool.name) }))
  return (
    <>
      <h1>Tools</h1>
      {tools.isPending && <Loading what="tools" />}
      {tools.isError && <ProblemBox error={tools.error} retry={() => void tools.refetch()} />}
      {breakers.isError && <ProblemBox error={breakers.error} retry={() => void breakers.refetch()} />}
      {tools.isSuccess && tools.data.rows.length === 0 && (
        <Empty>
          There are no tools yet. A worker announces those of its files; <code>tidelog tools define</code> declares one
          that is data.
        </Empty>
      )}
      {tools.isSuccess && tools.data.rows.length > 0 && (
        <>
          <Search what="tools" shown={rows.length} of={tools.data.rows.length} more={tools.data.more} />
          {rows.length === 0 ? (
            <Empty>No tool has these words.</Empty>
          ) : (
            <VirtualTable
              label="Tools"
              rows={rows}
              columns={COLUMNS}
              rowKey={({ tool }) => tool.tool_id}
              testId="tool-row"
              data={({ tool }) => ({ 'data-name': tool.name })}
              onOpen={({ tool }) => navigate(`/tools/${encodeURIComponent(tool.name)}`)}
            />
          )}
        </>
      )}
    </>
  )
}
