import { useQuery } from '@tanstack/react-query'
import { useId } from 'react'

import { api, dataOf } from '../../api/client'

/** The line of a slash command, and what commands there are. */
export function CommandLine({ line, onLine }: { readonly line: string; readonly onLine: (line: string) => void }) {
  const id = useId()
  const commands = useQuery({
    queryKey: ['commands'],
    refetchOnMount: 'always',
    queryFn: async ({ signal }) =>
      dataOf(await api.GET('/v1/commands', { params: { query: { limit: 1000 } }, signal })).data,
  })
  const typed = line.trim().slice(1).split(/\s/)[0] ?? ''
  const known = commands.data?.find(command => command.name === typed)
  return (
    <div className="field">
      <label htmlFor={id}>Command</label>
      <input
        id={id}
        className="input mono"
        placeholder="/task Write release notes"
        autoComplete="off"
        spellCheck={false}
        list={`${id}-commands`}
        value={line}
        onChange={event => onLine(event.target.value)}
      />
      <datalist id={`${id}-commands`}>
        {commands.data?.map(command => (
          <option key={command.name} value={`/${command.name} `} />
        ))}
      </datalist>
      <span className="soft">{known?.help ?? 'A command and its text; options as size=3.'}</span>
    </div>
  )
}
