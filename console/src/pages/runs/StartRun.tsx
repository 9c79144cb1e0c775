import { useMutation, useQuery } from '@tanstack/react-query'
import { useId, useState } from 'react'
import { Link, useLocation } from 'wouter'

import { api, dataOf } from '../../api/client'
import { Problem } from '../../api/problem'
import type { Fault } from '../../ui/schema/faults'
import { Json } from '../../ui/Json'
import { SchemaForm, useSchemaForm } from '../../ui/SchemaForm'
import { Loading, ProblemBox } from '../../ui/States'
import { CommandLine } from './CommandLine'
import { useAgents, useProjects, useWorkflows } from './data'
import { begun, commandBody, type Form, KINDS, type Kind, lacks, startBody } from './start'

/** Starts a run: an agent or a workflow with an input by its JSON Schema, several agents, a plan, or a slash command. */
export default function StartRun({ what }: { readonly what: string }) {
  const [form, setForm] = useState<Form>(() => begun(what))
  const change = (changed: Partial<Form>) => setForm(before => ({ ...before, ...changed }))
  const agents = useAgents()
  const workflows = useWorkflows()
  const projects = useProjects()
  const agent = form.kind === 'agent' ? agents.data?.find(one => one.name === form.name.trim()) : undefined
  const known = form.kind === 'workflow' && workflows.data?.some(one => one.name === form.name.trim())
  const workflow = useQuery({
    queryKey: ['workflows', 'one', form.name.trim()],
    enabled: known === true,
    queryFn: async ({ signal }) =>
      dataOf(await api.GET('/v1/workflows/{name}', { params: { path: { name: form.name.trim() } }, signal })),
  })
  const parameters = (workflow.data?.definition as { parameters?: unknown } | null | undefined)?.parameters
  const schema: unknown = form.kind === 'agent' ? agent?.input_schema : form.kind === 'workflow' ? parameters : null
  const loading = agents.isPending || workflows.isPending || (known === true && workflow.isPending)
  const id = useId()
  return (
    <>
      <div className="spread">
        <h1>Start a run</h1>
        <Link className="button" href="/runs">
          Back to the runs
        </Link>
      </div>
      <div className="start-run stack">
        <div className="panel stack">
          <div className="field">
            <label htmlFor={`${id}-kind`}>What runs</label>
            <select
              id={`${id}-kind`}
              className="input"
              value={form.kind}
              onChange={event => change({ kind: event.target.value as Kind })}
            >
              {KINDS.map(one => (
                <option key={one.kind} value={one.kind}>
                  {one.name}
                </option>
              ))}
            </select>
          </div>
          <datalist id={`${id}-agents`}>
            {agents.data?.map(one => (
              <option key={one.name} value={one.name} />
            ))}
          </datalist>
          <datalist id={`${id}-workflows`}>
            {workflows.data?.map(one => (
              <option key={one.name} value={one.name} />
            ))}
          </datalist>
          {(form.kind === 'agent' || form.kind === 'workflow') && (
            <div className="field">
              <label htmlFor={`${id}-name`}>{form.kind === 'agent' ? 'Agent' : 'Workflow'}</label>
              <input
                id={`${id}-name`}
                className="input"
                list={`${id}-${form.kind}s`}
                autoComplete="off"
                value={form.name}
                onChange={event => change({ name: event.target.value })}
              />
              <span className="soft">{agent?.description ?? workflow.data?.description}</span>
              {agent?.workers === 0 && <span className="fault">No worker offers it now: the run waits for one.</span>}
            </div>
          )}
          {(form.kind === 'sequential' || form.kind === 'parallel') && (
            <Agents form={form} change={change} list={`${id}-agents`} />
          )}
          {form.kind === 'command' && <CommandLine line={form.line} onLine={line => change({ line })} />}
        </div>
        {loading ? (
          <Loading what="what can be started" />
        ) : (
          <Rest
            key={`${form.kind} ${form.kind === 'agent' ? (agent?.name ?? '') : form.kind === 'workflow' ? String(known) + form.name : ''}`}
            form={form}
            change={change}
            schema={schema ?? null}
            projects={projects.data ?? []}
          />
        )}
      </div>
    </>
  )
}

interface Parts {
  readonly form: Form
  readonly change: (changed: Partial<Form>) => void
}

function Agents({ form, change, list }: Parts & { readonly list: string }) {
  const id = useId()
  const put = (at: number, name: string) =>
    change({ agents: form.agents.map((one, index) => (index === at ? name : one)) })
  return (
    <fieldset className="stack agents">
      <legend>Agents</legend>
      {form.agents.map((agent, index) => (
        <div className="row" key={`${index} of ${form.agents.length}`}>
          <input
            className="input"
            aria-label={`Agent ${index + 1}`}
            list={list}
            autoComplete="off"
            value={agent}
            onChange={event => put(index, event.target.value)}
          />
          {form.agents.length > 1 && (
            <button
              type="button"
              className="button plain small"
              aria-label={`Leave out agent ${index + 1}`}
              onClick={() => change({ agents: form.agents.filter((_, at) => at !== index) })}
            >
              ✕
            </button>
          )}
        </div>
      ))}
      <div>
        <button type="button" className="button small" onClick={() => change({ agents: [...form.agents, ''] })}>
          Add an agent
        </button>
      </div>
      {form.kind === 'parallel' && (
        <div className="field">
          <label htmlFor={`${id}-aggregator`}>Agent that gets all results (optional)</label>
          <input
            id={`${id}-aggregator`}
            className="input"
            list={list}
            autoComplete="off"
            value={form.aggregator}
            onChange={event => change({ aggregator: event.target.value })}
          />
        </div>
      )}
    </fieldset>
  )
}

interface RestProps extends Parts {
  readonly schema: unknown
  readonly projects: readonly { readonly project_id: string; readonly name: string }[]
}

const PLAN = { type: 'object', required: ['kind'], properties: { kind: { enum: ['graph', 'sequential', 'parallel'] } } }
const METADATA = { type: 'object' }

/** The input and the rest, and the button. Made anew when something else is started. */
function Rest({ form, change, schema, projects }: RestProps) {
  const [, navigate] = useLocation()
  const input = useSchemaForm(schema)
  const plan = useSchemaForm(PLAN, { kind: 'graph', steps: [{ key: 'first', agent: '' }] })
  const metadata = useSchemaForm(METADATA, {})
  const id = useId()
  const isCommand = form.kind === 'command'
  const given: Form = {
    ...form,
    input: input.value,
    plan: plan.value,
    metadata: Object.keys(metadata.value ?? {}).length === 0 ? undefined : metadata.value,
  }
  const start = useMutation({
    mutationFn: async () =>
      isCommand
        ? dataOf(await api.POST('/v1/commands', { body: commandBody(given, false) }))
        : dataOf(await api.POST('/v1/runs', { body: startBody(given) })),
    onSuccess: started => {
      if ('run_id' in started) navigate(`/runs/${started.run_id}`)
    },
  })
  const lacking =
    lacks(given) ??
    (!isCommand && (!input.valid || !metadata.valid || (form.kind === 'plan' && !plan.valid))
      ? 'Something does not fit'
      : null)
  const problem = start.error instanceof Problem ? start.error : null
  const served = (problem?.errors ?? [])
    .filter(fault => fault.pointer === '/input' || fault.pointer.startsWith('/input/'))
    .map((fault): Fault => ({ pointer: fault.pointer.slice('/input'.length), detail: fault.detail }))
  return (
    <form
      className="stack"
      onSubmit={event => {
        event.preventDefault()
        if (lacking === null) start.mutate()
      }}
    >
      {form.kind === 'plan' && (
        <div className="panel">
          <SchemaForm form={plan} name="Plan" />
        </div>
      )}
      {!isCommand && (
        <div className="panel">
          <SchemaForm form={input} name="Input" more={served} strict={start.isError} />
        </div>
      )}
      <details className="panel">
        <summary>More: project, priority, deadline, budget, concurrency, metadata</summary>
        <div className="start-options">
          <Options form={form} change={change} projects={projects} id={id} />
        </div>
        {!isCommand && <SchemaForm form={metadata} name="Metadata" />}
      </details>
      {start.isError && <ProblemBox error={start.error} />}
      {start.isSuccess && !('run_id' in start.data) && <Json of={start.data} what="answer" />}
      <div className="row">
        <button type="submit" className="button main" disabled={lacking !== null || start.isPending}>
          {start.isPending ? 'Starting …' : 'Start'}
        </button>
        {lacking !== null && <span className="soft">{lacking}</span>}
      </div>
    </form>
  )
}

function Options({ form, change, projects, id }: Omit<RestProps, 'schema'> & { readonly id: string }) {
  const isCommand = form.kind === 'command'
  const text = (name: 'deadline' | 'money' | 'concurrencyKey', label: string, hint: string) => (
    <div className="field">
      <label htmlFor={`${id}-${name}`}>{label}</label>
      <input
        id={`${id}-${name}`}
        className="input"
        placeholder={hint}
        autoComplete="off"
        value={form[name]}
        onChange={event => change({ [name]: event.target.value })}
      />
    </div>
  )
  const choice = (
    name: 'projectId' | 'priority' | 'onBusy',
    label: string,
    choices: readonly (readonly [string, string])[],
  ) => (
    <div className="field">
      <label htmlFor={`${id}-${name}`}>{label}</label>
      <select
        id={`${id}-${name}`}
        className="input"
        value={form[name]}
        onChange={event => change({ [name]: event.target.value })}
      >
        {choices.map(([value, shown]) => (
          <option key={value} value={value}>
            {shown}
          </option>
        ))}
      </select>
    </div>
  )
  return (
    <>
      {choice('projectId', 'Project', [
        ['', 'the default'],
        ...projects.map(one => [one.project_id, one.name] as const),
      ])}
      {text('deadline', 'Deadline, seconds', 'none')}
      {!isCommand && (
        <>
          {choice('priority', 'Priority', [
            ['', 'as the workflow says, or normal'],
            ['high', 'high'],
            ['normal', 'normal'],
            ['low', 'low'],
          ])}
          {text('money', 'Budget of money', 'none')}
          {text('concurrencyKey', 'Concurrency key', 'none')}
          {choice('onBusy', 'While another run has the key', [
            ['queue', 'wait for it'],
            ['reject', 'refuse this one'],
            ['replace', 'cancel the other'],
          ])}
        </>
      )}
    </>
  )
}
