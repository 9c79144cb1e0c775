import { Empty } from '../../ui/States'

export default function WorkersPage() {
  return (
    <>
      <h1>Workers</h1>
      <Empty>Nothing here yet.</Empty>
    </>
  )
}
