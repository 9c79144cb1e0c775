import { Time } from '../../ui/Time'
import { duration } from '../../ui/time'
import type { Member, Readiness } from './data'
import { unitsOf } from './state'
import { TableBox } from '../../ui/TableBox'

/** Which processes there are, and which parts of the engine's work each does. */
export function Processes({ members }: { readonly members: readonly Member[] }) {
  if (members.length === 0) return null
  return (
    <section className="panel stack" aria-label="Processes">
      <h2>Who does what</h2>
      <ul className="plain-list model-list">
        {members.map((member, at) => (
          <li key={member.place ?? `${member.joined_at} ${at}`} className="model" data-testid="process-row">
            <div className="row">
              <strong className="mono">{member.place ?? 'a process'}</strong>
              <span className={`badge ${member.alive ? 'good' : 'bad'}`}>{member.alive ? 'alive' : 'not seen'}</span>
              <span className="soft">
                release {member.release ?? 'unknown'}, since <Time of={member.joined_at} />
              </span>
            </div>
            {member.units.length === 0 ? (
              <p className="soft">Does no part of the engine&rsquo;s work at this moment.</p>
            ) : (
              <details>
                <summary>
                  {member.units.length} parts of the work:{' '}
                  {unitsOf(member.units)
                    .map(([group, names]) => (group === 'alone' ? names.join(', ') : `${names.length} × ${group}`))
                    .join(', ')}
                </summary>
                <ul className="units">
                  {member.units.map(unit => (
                    <li key={unit} className="tag">
                      {unit}
                    </li>
                  ))}
                </ul>
              </details>
            )}
          </li>
        ))}
      </ul>
    </section>
  )
}

/** What the server tidies up by itself. */
export function Upkeep({ chores }: { readonly chores: NonNullable<Readiness['upkeep']> }) {
  if (chores.length === 0) return null
  return (
    <section className="panel stack" aria-label="Upkeep">
      <h2>Upkeep</h2>
      <TableBox name="Chores">
        <table className="table">
          <thead>
            <tr>
              <th scope="col">Chore</th>
              <th scope="col">State</th>
              <th scope="col">Ended</th>
              <th scope="col" className="number">
                Took
              </th>
              <th scope="col" className="number">
                Removed
              </th>
            </tr>
          </thead>
          <tbody>
            {chores.map(chore => (
              <tr key={chore.name} data-testid="chore-row" data-name={chore.name}>
                <td>
                  {chore.name} <span className="soft">every {duration(chore.every_s * 1000)}</span>
                </td>
                <td>
                  {chore.error === null ? (
                    <span className="badge good">done</span>
                  ) : (
                    <>
                      <span className="badge bad">failed</span> <span className="fault">{chore.error}</span>
                    </>
                  )}
                </td>
                <td>
                  <Time of={chore.ended_at} />
                </td>
                <td className="number">{duration(chore.seconds * 1000)}</td>
                <td className="number">{chore.removed_in_all.toLocaleString('en')}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </TableBox>
    </section>
  )
}
