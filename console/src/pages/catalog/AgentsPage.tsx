import './catalog.css'

import { Link, useLocation } from 'wouter'

import { Empty, Loading, ProblemBox } from '../../ui/States'
import { Time } from '../../ui/Time'
import { type Column, VirtualTable } from '../../ui/VirtualTable'
import { AgentPage } from './AgentPage'
import { type Agent, matches, useAgents, useCatalogEvents } from './data'
import { Online, Search, Tags, useSearch } from './Search'

const COLUMNS: readonly Column<Agent>[] = [
  {
    key: 'name',
    name: 'Agent',
    track: 'minmax(9rem, 1fr)',
    cell: agent => (
      <Link className="mono" href={`/agents/${encodeURIComponent(agent.name)}`}>
        {agent.name}
      </Link>
    ),
  },
  { key: 'workers', name: 'Online', track: '7rem', cell: agent => <Online workers={agent.workers} /> },
  {
    key: 'about',
    name: 'What it does',
    track: 'minmax(10rem, 2.5fr)',
    wide: true,
    cell: agent => <span title={agent.description}>{agent.description}</span>,
  },
  {
    key: 'capabilities',
    name: 'Capabilities',
    track: 'minmax(6rem, 1fr)',
    wide: true,
    cell: agent => <Tags of={agent.capabilities} />,
  },
  { key: 'version', name: 'Version', track: '6rem', wide: true, cell: agent => agent.version },
  { key: 'since', name: 'Announced', track: '8rem', wide: true, cell: agent => <Time of={agent.registered_at} /> },
]

export default function AgentsPage({ name }: { readonly name: string | null }) {
  useCatalogEvents()
  return name === null ? <List /> : <AgentPage key={name} name={name} />
}

function List() {
  const agents = useAgents()
  const [search] = useSearch()
  const [, navigate] = useLocation()
  const rows = (agents.data?.rows ?? []).filter(agent =>
    matches(search, [agent.name, agent.description, ...agent.capabilities]),
  )
  return (
    <>
      <h1>Agents</h1>
      {agents.isPending && <Loading what="agents" />}
      {agents.isError && <ProblemBox error={agents.error} retry={() => void agents.refetch()} />}
      {agents.isSuccess && agents.data.rows.length === 0 && (
        <Empty>
          No worker has announced an agent yet. <code>tidelog up --agents FOLDER</code> starts one with yours.
        </Empty>
      )}
      {agents.isSuccess && agents.data.rows.length > 0 && (
        <>
          <Search what="agents" shown={rows.length} of={agents.data.rows.length} more={agents.data.more} />
          {rows.length === 0 ? (
            <Empty>No agent has these words.</Empty>
          ) : (
            <VirtualTable
              label="Agents"
              rows={rows}
              columns={COLUMNS}
              rowKey={agent => agent.agent_id}
              testId="agent-row"
              data={agent => ({ 'data-name': agent.name })}
              onOpen={agent => navigate(`/agents/${encodeURIComponent(agent.name)}`)}
            />
          )}
        </>
      )}
    </>
  )
}
