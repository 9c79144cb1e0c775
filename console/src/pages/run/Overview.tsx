import { Status } from '../../ui/Status'
import { Took } from '../../ui/Time'
import type { PartProps } from './RunPage'

/** The steps of a run. */
export function Overview({ run }: PartProps) {
  return (
    <div className="panel table-box">
      <table className="table">
        <thead>
          <tr>
            <th scope="col">Step</th>
            <th scope="col">Agent</th>
            <th scope="col">Status</th>
            <th scope="col">Took</th>
          </tr>
        </thead>
        <tbody>
          {run.steps.map(step => (
            <tr key={step.key} data-testid="step-row">
              <td className="mono">{step.key}</td>
              <td>{step.agent}</td>
              <td>
                <Status of={step.status} />
              </td>
              <td>
                <Took from={step.started_at} to={step.finished_at} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}
