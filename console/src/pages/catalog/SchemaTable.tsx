import { useState } from 'react'

import { Json } from '../../ui/Json'
import { schemaRows } from './schemaRows'
import { TableBox } from '../../ui/TableBox'

/** A JSON Schema as a table of its fields; the schema itself one click away. */
export function SchemaTable({
  of,
  name,
  none,
}: {
  readonly of: unknown
  readonly name: string
  readonly none: string
}) {
  const [raw, setRaw] = useState(false)
  const rows = schemaRows(of)
  return (
    <section className="panel stack" aria-label={name}>
      <div className="spread">
        <h2>{name}</h2>
        {rows !== null && (
          <button type="button" className="button small plain" aria-pressed={raw} onClick={() => setRaw(!raw)}>
            JSON Schema
          </button>
        )}
      </div>
      {rows === null && <p className="soft">{none}</p>}
      {rows !== null && raw && <Json of={of} what={name} />}
      {rows !== null && !raw && (
        <TableBox name={name}>
          <table className="table">
            <thead>
              <tr>
                <th scope="col">Field</th>
                <th scope="col">Type</th>
                <th scope="col">What</th>
              </tr>
            </thead>
            <tbody>
              {rows.map((row, at) =>
                row.depth === 0 && rows.length > 1 && row.about === '' ? null : (
                  <tr key={`${row.path} ${at}`}>
                    <td className="mono" style={{ paddingLeft: `${0.6 + Math.max(0, row.depth - 1) * 1.1}rem` }}>
                      {row.depth === 0 ? 'the value' : row.name}
                      {row.required && row.depth > 0 && (
                        <span className="needed" title="must be given">
                          *<span className="hidden"> must be given</span>
                        </span>
                      )}
                    </td>
                    <td>{row.type}</td>
                    <td>
                      {row.about !== '' && <div>{row.about}</div>}
                      {row.bounds.length > 0 && <div className="soft">{row.bounds.join(' · ')}</div>}
                    </td>
                  </tr>
                ),
              )}
            </tbody>
          </table>
        </TableBox>
      )}
    </section>
  )
}
