import { Empty } from '../../ui/States'

export default function AgentsPage({ name }: { readonly name: string | null }) {
  return (
    <>
      <h1>{name ?? 'Agents'}</h1>
      <Empty>Nothing here yet.</Empty>
    </>
  )
}
