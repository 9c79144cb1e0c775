import type { RunDiff } from '../../../api/types'

/** Places of the run's document that differ. */
export function StateChanges({ changes }: { readonly changes: RunDiff['state'] }) {
  return (
    <section className="stack" aria-label="State">
      <h2>State</h2>
      <div className="panel table-box">
        <table className="table compare-state">
          <thead>
            <tr>
              <th scope="col">Field</th>
              <th scope="col">This side</th>
              <th scope="col">Other side</th>
            </tr>
          </thead>
          <tbody>
            {changes.map(({ path, before, after }) => (
              <tr key={path} data-testid="change-row">
                <td className="mono">{path}</td>
                <td className="mono">{before ?? <span className="soft">–</span>}</td>
                <td className="mono">{after ?? <span className="soft">–</span>}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  )
}
