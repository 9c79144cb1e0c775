/** Short names of what the interface answers with. */
import type { components } from './schema'

export type Run = components['schemas']['RunView']
export type RunSummary = components['schemas']['RunSummary']
export type Step = components['schemas']['StepView']
export type Failure = components['schemas']['Failure']
