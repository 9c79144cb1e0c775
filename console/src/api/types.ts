/** Short names of what the interface answers with. */
import type { components } from './schema'

type Schemas = components['schemas']

export type Run = Schemas['RunView']
export type RunSummary = Schemas['RunSummary']
export type Step = Schemas['StepView']
export type PlanStep = Schemas['Step']
export type Part = Schemas['PartView']
export type Failure = Schemas['Failure']
export type Call = Schemas['RunCallView']
export type Invocation = Schemas['InvocationView']
export type JournalEntry = Schemas['JournalEntryView']
export type LogLine = Schemas['WorkLineView']
export type RunWait = Schemas['RunWaitView']
export type Effect = Schemas['EffectView']
export type Message = Schemas['MessageView']
export type CloudEvent = Schemas['CloudEvent']
export type CauseLink = Schemas['LinkView']
export type CausedEvent = Schemas['CausedEventsView']['data'][number]
export type RunDiff = Schemas['RunDiffView']
export type RunDifference = RunDiff['data'][number]

type Row = Schemas['EventRowView']
type Always = 'position' | 'type' | 'time' | 'stream' | 'version'
/** An event in short. What it does not say is missing. */
export type EventRow = Pick<Row, Always> & { readonly [Name in Exclude<keyof Row, Always>]?: NonNullable<Row[Name]> }
