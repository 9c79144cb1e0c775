import { Component, lazy, type ReactNode, Suspense } from 'react'
import { Link, Redirect, Route, Switch, useLocation } from 'wouter'

import { Empty, Loading, ProblemBox } from '../ui/States'

// One chunk a page: the first load is small (`vite.config.ts` names the files).
const Runs = lazy(() => import('../pages/runs/RunsPage'))
const Run = lazy(() => import('../pages/run/RunPage'))
const Inbox = lazy(() => import('../pages/inbox/InboxPage'))
const Feed = lazy(() => import('../pages/feed/FeedPage'))
const Agents = lazy(() => import('../pages/catalog/AgentsPage'))
const Tools = lazy(() => import('../pages/catalog/ToolsPage'))
const Workers = lazy(() => import('../pages/catalog/WorkersPage'))
const Health = lazy(() => import('../pages/health/HealthPage'))

/** Which page stands at which address. */
export function Pages() {
  const [location] = useLocation()
  return (
    <Boundary at={location}>
      <Suspense fallback={<Loading what="the page" />}>
        <Switch>
          <Route path="/">
            <Redirect to="/runs" replace />
          </Route>
          <Route path="/runs" component={Runs} />
          <Route path="/runs/:runId/:part?">
            {({ runId, part }) => <Run key={runId} runId={runId} part={part ?? 'overview'} />}
          </Route>
          <Route path="/inbox/:approvalId?">{({ approvalId }) => <Inbox approvalId={approvalId ?? null} />}</Route>
          <Route path="/feed" component={Feed} />
          <Route path="/agents/:name?">{({ name }) => <Agents name={name ?? null} />}</Route>
          <Route path="/tools/:name?">{({ name }) => <Tools name={name ?? null} />}</Route>
          <Route path="/workers" component={Workers} />
          <Route path="/health" component={Health} />
          <Route>
            <h1>There is no such page</h1>
            <Empty>
              <Link href="/runs">All runs</Link>
            </Empty>
          </Route>
        </Switch>
      </Suspense>
    </Boundary>
  )
}

/** Keeps a fault of one page from taking the console down. */
class Boundary extends Component<{ at: string; children: ReactNode }, { error: unknown }> {
  override state: { error: unknown } = { error: null }

  static getDerivedStateFromError(error: unknown) {
    return { error }
  }

  // Another page gets a new chance; the same page, at another part of it, is not built anew.
  override componentDidUpdate(before: { at: string }) {
    if (before.at !== this.props.at && this.state.error !== null) this.setState({ error: null })
  }

  override render() {
    return this.state.error === null ? (
      this.props.children
    ) : (
      <ProblemBox error={this.state.error} retry={() => this.setState({ error: null })} />
    )
  }
}
