import { useId, useState } from 'react'

import { useAgents, useProjects, useWorkflows } from './data'
import { type Filters, isNone, NONE, type NumberName, secondsOf, type TextName } from './filters'
import { Saved } from './Saved'

interface Props {
  readonly filters: Filters
  readonly onFilters: (filters: Filters) => void
}

const SINCE = ['15m', '1h', '24h', '7d', '30d']
const MORE: readonly { name: TextName; label: string; hint: string; type?: string }[] = [
  { name: 'workflow', label: 'Workflow', hint: 'name, or name@version' },
  { name: 'origin', label: 'Started by', hint: 'schedule:nightly, trigger:…, command' },
  { name: 'on_behalf_of', label: 'On behalf of', hint: 'user:ada@example.org' },
  { name: 'actor', label: 'By key', hint: 'key:…' },
  { name: 'parent', label: 'Parent run', hint: 'id of a run' },
  { name: 'concurrency_key', label: 'Concurrency key', hint: '' },
  { name: 'started_after', label: 'Started at or after', hint: '2026-11-30T12:00:00Z' },
  { name: 'started_before', label: 'Started before', hint: '2026-11-30T13:00:00Z' },
]
const TIMES: readonly { name: NumberName; label: string }[] = [
  { name: 'longer_s', label: 'Took at least, seconds' },
  { name: 'shorter_s', label: 'Took less than, seconds' },
  { name: 'unmoved_s', label: 'Nothing happened for, seconds' },
]

/** Which runs are shown. What is typed counts on Enter, or when the field is left. */
export function FilterBar({ filters, onFilters }: Props) {
  const agents = useAgents()
  const workflows = useWorkflows()
  const projects = useProjects()
  const id = useId()
  const [pair, setPair] = useState('')
  const text = (name: TextName, value: string) => {
    const texts = without(filters.texts, name)
    onFilters({ ...filters, texts: value.trim() === '' ? texts : { ...texts, [name]: value.trim() } })
  }
  const number = (name: NumberName, value: string) => {
    const numbers = without(filters.numbers, name)
    const seconds = value.trim() === '' ? Number.NaN : (secondsOf(value.trim()) ?? Number(value))
    onFilters({ ...filters, numbers: seconds >= 0 ? { ...numbers, [name]: seconds } : numbers })
  }
  const addPair = () => {
    if (pair.indexOf('=') <= 0) return
    onFilters({ ...filters, metadata: [...new Set([...filters.metadata, pair.trim()])] })
    setPair('')
  }
  const further = MORE.filter(one => filters.texts[one.name] !== undefined).length + Object.keys(filters.numbers).length
  return (
    <div className="run-filters">
      <Typed
        label="Agent"
        value={filters.texts.agent ?? ''}
        list={`${id}-agents`}
        onValue={value => text('agent', value)}
      />
      <datalist id={`${id}-agents`}>
        {agents.data?.map(agent => (
          <option key={agent.name} value={agent.name} />
        ))}
      </datalist>
      <datalist id={`${id}-workflows`}>
        {workflows.data?.map(one => (
          <option key={one.name} value={one.name} />
        ))}
      </datalist>
      <div className="field">
        <label htmlFor={`${id}-since`}>Started within</label>
        <select
          id={`${id}-since`}
          className="input"
          value={filters.since ?? ''}
          onChange={event => onFilters({ ...filters, since: event.target.value === '' ? null : event.target.value })}
        >
          <option value="">any time</option>
          {[...new Set([...SINCE, ...(filters.since === null ? [] : [filters.since])])].map(since => (
            <option key={since} value={since}>
              {since}
            </option>
          ))}
        </select>
      </div>
      <Typed label="Error has the words" value={filters.texts.error ?? ''} onValue={value => text('error', value)} />
      <form
        className="field"
        onSubmit={event => {
          event.preventDefault()
          addPair()
        }}
      >
        <label htmlFor={`${id}-metadata`}>Metadata</label>
        <input
          id={`${id}-metadata`}
          className="input"
          placeholder="name=value"
          autoComplete="off"
          value={pair}
          onChange={event => setPair(event.target.value)}
          onBlur={addPair}
        />
      </form>
      {(projects.data?.length ?? 0) > 1 && (
        <div className="field">
          <label htmlFor={`${id}-project`}>Project</label>
          <select
            id={`${id}-project`}
            className="input"
            value={filters.texts.project_id ?? ''}
            onChange={event => text('project_id', event.target.value)}
          >
            <option value="">all</option>
            {projects.data?.map(project => (
              <option key={project.project_id} value={project.project_id}>
                {project.name}
              </option>
            ))}
          </select>
        </div>
      )}
      <details className="more-run-filters">
        <summary>More filters{further > 0 && ` (${further})`}</summary>
        <div className="run-filters">
          {MORE.map(({ name, label, hint }) => (
            <Typed
              key={name}
              label={label}
              hint={hint}
              value={filters.texts[name] ?? ''}
              {...(name === 'workflow' ? { list: `${id}-workflows` } : {})}
              onValue={value => text(name, value)}
            />
          ))}
          {TIMES.map(({ name, label }) => (
            <Typed
              key={name}
              label={label}
              hint="60, 5m, 2h"
              value={String(filters.numbers[name] ?? '')}
              onValue={value => number(name, value)}
            />
          ))}
        </div>
      </details>
      <Saved filters={filters} onFilters={onFilters} />
      <Chips filters={filters} onFilters={onFilters} projects={projects.data ?? []} />
    </div>
  )
}

interface TypedProps {
  readonly label: string
  readonly value: string
  readonly hint?: string
  readonly list?: string
  readonly onValue: (value: string) => void
}

/** A text that counts when it is finished. */
function Typed({ label, value, hint = '', list, onValue }: TypedProps) {
  const id = useId()
  const [typed, setTyped] = useState<{ text: string; over: string } | null>(null)
  const shown = typed !== null && typed.over === value ? typed.text : value
  const finish = () => {
    if (shown !== value) onValue(shown)
    setTyped(null)
  }
  return (
    <form
      className="field"
      onSubmit={event => {
        event.preventDefault()
        finish()
      }}
    >
      <label htmlFor={id}>{label}</label>
      <input
        id={id}
        className="input"
        placeholder={hint}
        autoComplete="off"
        list={list}
        value={shown}
        onChange={event => setTyped({ text: event.target.value, over: value })}
        onBlur={finish}
      />
    </form>
  )
}

interface ChipsProps extends Props {
  readonly projects: readonly { readonly project_id: string; readonly name: string }[]
}

/** What is filtered now: each filter goes by one click, and all of them by one. */
function Chips({ filters, onFilters, projects }: ChipsProps) {
  if (isNone(filters)) return null
  const chips: { text: string; without: Filters }[] = [
    ...Object.entries(filters.texts).map(([name, value]) => ({
      text: `${name.replaceAll('_', ' ').replace(' id', '')}: ${projects.find(one => one.project_id === value)?.name ?? value}`,
      without: { ...filters, texts: without(filters.texts, name) },
    })),
    ...filters.metadata.map(pair => ({
      text: pair,
      without: { ...filters, metadata: filters.metadata.filter(one => one !== pair) },
    })),
    ...Object.entries(filters.numbers).map(([name, value]) => ({
      text: `${name.replace('_s', '')}: ${value} s`,
      without: { ...filters, numbers: without(filters.numbers, name) },
    })),
  ]
  return (
    <div className="row filter-chips">
      {chips.map(chip => (
        <button
          key={chip.text}
          type="button"
          className="button small filter-chip"
          aria-label={`Without ${chip.text}`}
          onClick={() => onFilters(chip.without)}
        >
          <span>{chip.text}</span> ✕
        </button>
      ))}
      <button type="button" className="button small" onClick={() => onFilters(NONE)}>
        Clear all filters
      </button>
    </div>
  )
}

function without<T extends object>(values: T, name: string): T {
  return Object.fromEntries(Object.entries(values).filter(([known]) => known !== name)) as T
}
