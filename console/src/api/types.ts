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
