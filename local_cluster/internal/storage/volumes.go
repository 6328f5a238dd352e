package storage

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	storagehelpers "k8s.io/component-helpers/storage/volume"
	"k8s.io/klog/v2"
)

// ours says whether a volume was made here. Its path is compared as well as its annotations, since they can be copied to
// a volume of other make, whose folder is not ours to delete.
func (c *controller) ours(volume *corev1.PersistentVolume) bool {
	return volume.Annotations[storagehelpers.AnnDynamicallyProvisioned] == Provisioner &&
		volume.Annotations[NodeAnnotation] == c.node &&
		volume.Spec.Local != nil && volume.Spec.Local.Path == c.folders.location(volume.Name)
}

// fate is what is to be done about a volume.
type fate int

const (
	keep    fate = iota // nothing
	forget              // let the object go, leave the folder
	destroy             // delete the folder, then the object
)

func (c *controller) fate(volume *corev1.PersistentVolume) fate {
	deleted := volume.DeletionTimestamp != nil
	held := slices.Contains(volume.Finalizers, finalizer)
	switch {
	case !c.ours(volume) || deleted && !held:
		return keep // not ours, or done with
	case volume.Status.Phase == corev1.VolumeBound || volume.Status.Phase == corev1.VolumePending || volume.Status.Phase == "":
		return keep // in use, or about to be judged by the controller manager
	case volume.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete:
		if deleted {
			return forget
		}
		return keep
	case volume.Status.Phase == corev1.VolumeReleased || deleted:
		return destroy
	}
	return keep // available: somebody made it free to be claimed again
}

func (c *controller) syncVolume(ctx context.Context, name string) error {
	cached, err := c.volumes.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil || c.fate(cached) == keep {
		return err
	}
	// What is about to be deleted is asked for once more: a cache may be behind.
	volume, err := c.client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	switch c.fate(volume) {
	case forget:
		return c.release(ctx, volume)
	case destroy:
		return c.destroy(ctx, volume)
	}
	return nil
}

// destroy deletes the folder first and the object last, so that an interruption leaves an object that says what to do.
func (c *controller) destroy(ctx context.Context, volume *corev1.PersistentVolume) error {
	claimed, err := c.claimed(ctx, volume)
	if err != nil {
		return err
	}
	if claimed {
		return fmt.Errorf("it is %s, and yet its claim %s/%s exists", volume.Status.Phase, volume.Spec.ClaimRef.Namespace, volume.Spec.ClaimRef.Name)
	}
	if err := c.folders.remove(ctx, volume.Name); err != nil {
		if ctx.Err() == nil {
			c.recorder.Event(volume, corev1.EventTypeWarning, reasonDeleteFailed, err.Error())
		}
		return err
	}
	err = c.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(volume.UID))})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	klog.InfoS("Deleted", "volume", volume.Name)
	return c.release(ctx, volume)
}

// claimed says whether the claim that a volume belongs to is still there.
func (c *controller) claimed(ctx context.Context, volume *corev1.PersistentVolume) (bool, error) {
	reference := volume.Spec.ClaimRef
	if reference == nil {
		return false, nil
	}
	claim, err := c.client.CoreV1().PersistentVolumeClaims(reference.Namespace).Get(ctx, reference.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil && claim.UID == reference.UID, err
}

// release takes our finalizer off, and nothing else: others come and go meanwhile, so the list is not written as a whole.
func (c *controller) release(ctx context.Context, volume *corev1.PersistentVolume) error {
	if !slices.Contains(volume.Finalizers, finalizer) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": volume.UID, "$deleteFromPrimitiveList/finalizers": []string{finalizer},
	}})
	if err != nil {
		return err
	}
	_, err = c.client.CoreV1().PersistentVolumes().Patch(ctx, volume.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// sweep removes the empty folders of claims that went away before their volume was made. One that holds data is somebody's,
// kept by reclaim policy Retain, and stays.
func (c *controller) sweep(ctx context.Context) {
	// First the folders, then the claims: a folder is only made for a claim that is in the cache already.
	names, err := c.folders.list()
	if err != nil {
		klog.InfoS("Unused folders cannot be looked for", "root", c.folders.path, "cause", err.Error())
		return
	}
	claims, err := c.claims.List(everything)
	if err != nil {
		return
	}
	present := make(map[string]bool, len(claims))
	for _, claim := range claims {
		present[volumeName(claim)] = true
	}
	for _, name := range names {
		if present[name] {
			continue
		}
		if _, err := c.client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			continue
		}
		removed, err := c.folders.removeIfEmpty(name)
		if err != nil {
			klog.InfoS("An unused folder cannot be removed", "folder", c.folders.location(name), "cause", err.Error())
		} else if removed {
			klog.InfoS("Removed an unused folder", "folder", c.folders.location(name))
		}
	}
}
