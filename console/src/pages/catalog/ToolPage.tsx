import { useQuery } from '@tanstack/react-query'
import { Link, useSearchParams } from 'wouter'

import { api, dataOf } from '../../api/client'
import { watched } from '../../api/watch'
import { Json } from '../../ui/Json'
import { Loading, ProblemBox } from '../../ui/States'
import { Status } from '../../ui/Status'
import { Time } from '../../ui/Time'
import { Offering } from './AgentPage'
import type { Tool } from './data'
import { policyOf } from './policy'
import { SchemaTable } from './SchemaTable'
import { Online, Tags } from './Search'
import { ToolActs } from './ToolActs'
import { ToolBreaker } from './ToolBreaker'
import { ToolCalls } from './ToolCalls'
import { ToolTry } from './ToolTry'
import { ToolVersions } from './ToolVersions'

const PARTS = { about: 'About', try: 'Try it', calls: 'Calls', versions: 'Versions', breaker: 'Breaker' } as const
type Part = keyof typeof PARTS

export function ToolPage({ name }: { readonly name: string }) {
  const tool = useQuery({
    queryKey: ['tool', name],
    queryFn: async ({ signal }) => dataOf(await api.GET('/v1/tools/{name}', { params: { path: { name } }, signal })),
    ...watched,
  })
  const [params] = useSearchParams()
  const asked = params.get('part') ?? 'about'
  const part: Part = asked in PARTS ? (asked as Part) : 'about'
  return (
    <>
      <nav aria-label="Where this is">
        <Link href="/tools">Tools</Link>
      </nav>
      {tool.isPending && <Loading what="the tool" />}
      {tool.isError && (
        <>
          <h1 className="mono">{name}</h1>
          <ProblemBox error={tool.error} retry={() => void tool.refetch()} />
        </>
      )}
      {tool.isSuccess && (
        <>
          <Header tool={tool.data} />
          <nav className="tabs" aria-label="Parts of the tool">
            {Object.entries(PARTS).map(([path, title]) => (
              <Link
                key={path}
                href={`/tools/${encodeURIComponent(name)}${path === 'about' ? '' : `?part=${path}`}`}
                aria-current={path === part ? 'page' : undefined}
              >
                {title}
              </Link>
            ))}
          </nav>
          {part === 'about' && <About tool={tool.data} />}
          {part === 'try' && <ToolTry key={tool.data.revision} tool={tool.data} />}
          {part === 'calls' && <ToolCalls name={name} />}
          {part === 'versions' && <ToolVersions tool={tool.data} />}
          {part === 'breaker' && <ToolBreaker name={name} />}
        </>
      )}
    </>
  )
}

function Header({ tool }: { readonly tool: Tool }) {
  return (
    <>
      <header className="spread">
        <h1 className="row">
          <span className="mono">{tool.name}</span>
          <Online workers={tool.workers} />
          {tool.deprecated !== null && <Status of="deprecated" />}
        </h1>
        <ToolActs tool={tool} />
      </header>
      {tool.description !== '' && <p className="about">{tool.description}</p>}
      {tool.deprecated !== null && (
        <div className="notice warn">
          Deprecated <Time of={tool.deprecated.since} />
          {tool.deprecated.note !== null && <>: {tool.deprecated.note}</>}
          {tool.deprecated.replaced_by !== null && (
            <>
              {' '}
              Use{' '}
              <Link href={`/tools/${encodeURIComponent(tool.deprecated.replaced_by)}`}>
                {tool.deprecated.replaced_by}
              </Link>{' '}
              instead.
            </>
          )}
        </div>
      )}
    </>
  )
}

function About({ tool }: { readonly tool: Tool }) {
  return (
    <>
      <div className="catalog-pair">
        <Facts tool={tool} />
        <Offering kind="tools" name={tool.name} version={tool.version} />
      </div>
      <div className="catalog-pair">
        <SchemaTable of={tool.parameters} name="Arguments" none="It takes no arguments." />
        <SchemaTable of={tool.result} name="Result" none="It answers with any JSON value." />
      </div>
      {(tool.request ?? tool.chain) !== null && (
        <section className="panel stack" aria-label="What it does">
          <h2>{tool.chain === null ? 'Request' : 'Chain'}</h2>
          <Json of={tool.request ?? tool.chain} what={tool.chain === null ? 'request' : 'chain'} />
        </section>
      )}
      {tool.examples.length > 0 && (
        <section className="panel stack" aria-label="Examples">
          <h2>Examples</h2>
          {tool.examples.map((example, at) => (
            <Json key={`${at} ${JSON.stringify(example)}`} of={example} what={`example ${at + 1}`} />
          ))}
        </section>
      )}
    </>
  )
}

function Facts({ tool }: { readonly tool: Tool }) {
  const { limits } = tool
  const needs = [...tool.needs_tools, ...tool.needs_services]
  return (
    <dl className="facts panel">
      <dt>Kind</dt>
      <dd>
        {tool.kind}
        {tool.builtin !== null && ` (${tool.builtin})`}
      </dd>
      <dt>Version</dt>
      <dd>
        {tool.version} <span className="soft">{tool.pinned ? 'never changes' : 'follows the code of its workers'}</span>
      </dd>
      <dt>Declared</dt>
      <dd>
        <Time of={tool.registered_at} />
      </dd>
      {tool.capabilities.length > 0 && (
        <>
          <dt>Capabilities</dt>
          <dd>
            <Tags of={tool.capabilities} />
          </dd>
        </>
      )}
      <dt>An attempt</dt>
      <dd>
        ends after {tool.timeout_s} s; {tool.max_attempts === 1 ? 'one attempt' : `up to ${tool.max_attempts} attempts`}
      </dd>
      <dt>Calling it twice</dt>
      <dd>{tool.idempotent ? 'does no harm (idempotent)' : 'has an effect twice'}</dd>
      {tool.untrusted_output && (
        <>
          <dt>Its result</dt>
          <dd>holds text of strangers: a model must not take it for instructions</dd>
        </>
      )}
      {tool.reconcile_timeout_s !== null && (
        <>
          <dt>Unknown outcome</dt>
          <dd>its worker can be asked</dd>
        </>
      )}
      {needs.length > 0 && (
        <>
          <dt>Needs</dt>
          <dd>
            <Tags of={needs} />
          </dd>
        </>
      )}
      {policyOf(tool.policy).map(([what, says]) => (
        <FactPair key={what} what={what} says={says} />
      ))}
      {limits !== null && (
        <>
          <dt>In use</dt>
          <dd>
            {limits.in_use} {limits.in_use === 1 ? 'call goes on' : 'calls go on'}, {limits.waiting} wait
            {limits.waiting_since !== null && (
              <>
                {' '}
                (the first since <Time of={limits.waiting_since} />)
              </>
            )}
            {limits.held_until !== null && (
              <>
                ; held until <Time of={limits.held_until} />
              </>
            )}
          </dd>
        </>
      )}
    </dl>
  )
}

function FactPair({ what, says }: { readonly what: string; readonly says: string }) {
  return (
    <>
      <dt>{what}</dt>
      <dd>{says}</dd>
    </>
  )
}
