import { Empty } from '../../ui/States'

export default function ToolsPage({ name }: { readonly name: string | null }) {
  return (
    <>
      <h1>{name ?? 'Tools'}</h1>
      <Empty>Nothing here yet.</Empty>
    </>
  )
}
