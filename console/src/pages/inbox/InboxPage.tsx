import { Empty } from '../../ui/States'

export default function InboxPage({ approvalId }: { readonly approvalId: string | null }) {
  return (
    <>
      <h1>{approvalId ?? 'Inbox'}</h1>
      <Empty>Nothing here yet.</Empty>
    </>
  )
}
