import { useQueryClient } from '@tanstack/react-query'
import { useSearchParams } from 'wouter'

import { api, dataOf, withReason } from '../../api/client'
import { usePages } from '../../api/pages'
import { useRefusal } from '../../app/roles'
import { Act } from '../../ui/Act'
import { Diff } from '../../ui/Diff'
import { Loading, ProblemBox } from '../../ui/States'
import { Time } from '../../ui/Time'
import type { Tool, ToolVersion } from './data'
import { declarationOf, nextVersion } from './declaration'
import { TableBox } from '../../ui/TableBox'

/** The versions of a tool, and what differs between two of them. */
export function ToolVersions({ tool }: { readonly tool: Tool }) {
  const { name } = tool
  const versions = usePages<ToolVersion>(['tool', name, 'versions'], async (cursor, signal) =>
    dataOf(
      await api.GET('/v1/tools/{name}/versions', {
        params: { path: { name }, query: { limit: 100, ...cursor } },
        signal,
      }),
    ),
  )
  const [params, setParams] = useSearchParams()
  const choose = (which: 'from' | 'to', version: string) =>
    setParams(
      before => {
        const next = new URLSearchParams(before)
        next.set(which, version)
        return next
      },
      { replace: true },
    )
  if (versions.isPending) return <Loading what="versions" />
  if (versions.isError) return <ProblemBox error={versions.error} retry={() => void versions.refetch()} />
  const { rows } = versions
  const to = rows.find(row => row.version === params.get('to')) ?? rows[0]
  const from = rows.find(row => row.version === params.get('from')) ?? rows[1] ?? to
  const known = rows.map(row => row.version)
  return (
    <>
      <section className="panel stack" aria-label="Versions">
        <h2>Versions</h2>
        <TableBox name="Versions">
          <table className="table">
            <thead>
              <tr>
                <th scope="col">Version</th>
                <th scope="col">Declared</th>
                <th scope="col">Compare from</th>
                <th scope="col">to</th>
                <td />
              </tr>
            </thead>
            <tbody>
              {rows.map(row => (
                <tr key={row.version} data-testid="version-row" data-name={row.version}>
                  <td>
                    <span className="mono">{row.version}</span>{' '}
                    {row.version === tool.version && <span className="badge good">current</span>}
                  </td>
                  <td>
                    <Time of={row.last_registered_at} />
                  </td>
                  {(['from', 'to'] as const).map(which => (
                    <td key={which}>
                      <input
                        type="radio"
                        name={which}
                        aria-label={`Compare ${which} ${row.version}`}
                        checked={row === (which === 'from' ? from : to)}
                        onChange={() => choose(which, row.version)}
                      />
                    </td>
                  ))}
                  <td>{row.version !== tool.version && <Again tool={tool} version={row} known={known} />}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </TableBox>
        {versions.hasNextPage && (
          <button
            type="button"
            className="button"
            disabled={versions.isFetchingNextPage}
            onClick={() => void versions.fetchNextPage()}
          >
            Older versions
          </button>
        )}
      </section>
      {rows.length > 1 && from !== undefined && to !== undefined && (
        <section className="panel stack" aria-label="What differs">
          <h2>
            From <span className="mono">{from.version}</span> to <span className="mono">{to.version}</span>
          </h2>
          <Diff before={declarationOf(from)} after={declarationOf(to)} what="What differs between the versions" />
        </section>
      )}
    </>
  )
}

interface AgainProps {
  readonly tool: Tool
  readonly version: ToolVersion
  readonly known: readonly string[]
}

/** Declares what an older version said as a new version: a version that was named never changes. */
function Again({ tool, version, known }: AgainProps) {
  const client = useQueryClient()
  const refused = useRefusal('tools.define')
  const next = nextVersion(tool.version, known)
  const ofWorkers = tool.kind === 'python' ? 'Its workers declare it: go back in their code.' : undefined
  return (
    <Act
      name="Go back to it"
      what={
        <>
          What version <b>{version.version}</b> says becomes the current version, as <b>{next}</b>. Calls that go on are
          not touched.
        </>
      }
      refused={ofWorkers ?? refused}
      act={reason =>
        api.POST('/v1/tools/{name}/versions', {
          params: { path: { name: tool.name } },
          headers: { ...withReason(reason), 'If-Match': `"v${tool.stream_version}"` },
          body: { ...declarationOf(version), version: next } as never,
        })
      }
      onDone={() => {
        void client.invalidateQueries({ queryKey: ['tool', tool.name] })
        void client.invalidateQueries({ queryKey: ['tools'] })
      }}
    />
  )
}
