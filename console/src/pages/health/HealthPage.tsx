import { Empty } from '../../ui/States'

export default function HealthPage() {
  return (
    <>
      <h1>Health</h1>
      <Empty>Nothing here yet.</Empty>
    </>
  )
}
