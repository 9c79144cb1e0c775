import { Empty } from '../../ui/States'

export default function FeedPage() {
  return (
    <>
      <h1>Feed</h1>
      <Empty>Nothing here yet.</Empty>
    </>
  )
}
